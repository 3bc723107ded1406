# What a service may do that reads the values of payments/db itself: three entries for each of its secrets.
key_prefix "rotacast/versions/payments/db/" {
  policy = "read"
}

key_prefix "rotacast/readers/payments/db/" {
  policy = "read"
}

key "rotacast/records/payments/db" {
  policy = "read"
}
