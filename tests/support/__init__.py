"""What tests share: waiting, ports and doubles. The only place in tests that may sleep."""
