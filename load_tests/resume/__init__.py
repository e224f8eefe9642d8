"""Streams whose clients lose their connection and read on from another router: whether the joined text is the same."""
