"""For authors of sources and layers: a client, a conformance suite, fault injection."""
