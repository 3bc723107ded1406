# What a service may do that reads the values of payments/db itself: two entries for each of its secrets.
key_prefix "rotacast/versions/payments/db/" {
  policy = "read"
}

key "rotacast/records/payments/db" {
  policy = "read"
}
