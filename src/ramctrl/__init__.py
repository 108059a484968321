"""The command line client of the RAMD API.

Lives here: asking the API and showing its answers. Must not live here: any judgement that the API
did not make. Start reading at `__main__`; one file per command group (`cluster`, `nodes`).
"""
