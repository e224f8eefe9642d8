"""The guard against opposite meanings: reads two questions, and names a difference that makes two answers of them."""
