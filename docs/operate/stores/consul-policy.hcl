# What a broadcaster may do: everything below its prefix, and sessions of its own.
key_prefix "rotacast/" {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}

# For `rotacast doctor` only: the version.
agent_prefix "" {
  policy = "read"
}
