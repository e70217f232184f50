"""What there is of guests in a lab: exports, overlays and domains."""

import json

from nbdctl_command import run_nbdctl

__all__ = ["domains", "exports", "nothing_is_left", "overlays"]


def exports(server):
    shown = run_nbdctl("export", "list", "--json", "--control", server.control)
    return {one["name"] for one in json.loads(shown.stdout)["exports"]}


def overlays(server):
    return {path.name for path in server.overlays.iterdir()}


def domains(lab):
    return {
        f"{node.name}:{name}"
        for node in lab.nodes.values()
        if node.is_on()
        for name in node.run(["virsh", "-q", "list", "--all", "--name"]).split()
    }


def nothing_is_left(lab, server):
    return (exports(server), overlays(server), domains(lab)) == (set(), set(), set())
