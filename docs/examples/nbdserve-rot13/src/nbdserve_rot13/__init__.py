"""An example of elements that come with a package of their own."""
