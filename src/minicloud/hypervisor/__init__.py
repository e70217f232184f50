"""libvirt of one node: calls through an ssh tunnel, and the facts they give."""
