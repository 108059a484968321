"""Members come and go by the will of people: tokens, orders, and the coordinator's part in it.

Lives here: the token of an invitation (`token`), what people may ask (`orders`), what the new
node's file must say (`lines`), the coordinator's steps (`steward`), and what a removed node keeps
of it (`removed`). Must not live here: the rules (`membership` of `ramd.policy` and `ramd.state`),
the group itself (`ramd.link`). Start reading at `orders.add_node`.
"""
