"""How pgraft nodes reach each other.

Lives here: the `Transport` protocol and its two implementations (`tcp`, `memory`), the hello that
every connection must pass (`hello`), requests and answers beside Raft (`channel`). Must not live
here: Raft, storage, decisions about who leads. Start reading at `transport`, then `hello`.
"""
