"""What the persistent cache is made of: files of chunks, their maps, one folder for all of them."""
