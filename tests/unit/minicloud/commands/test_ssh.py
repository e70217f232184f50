"""What `minicloud ssh` takes for its own and what for the guest's command, as ssh(1) does."""

import pytest

from minicloud.cli import parser


@pytest.mark.parametrize(
    ("words", "user", "command"),
    [
        (["web1"], None, []),
        (["web1", "-l", "debian"], "debian", []),
        (["-l", "debian", "web1", "ls", "-l"], "debian", ["ls", "-l"]),
        (["web1", "-l", "debian", "ls", "-l", "x"], "debian", ["ls", "-l", "x"]),
        (["web1", "systemctl", "status", "nginx", "--json"], None,
         ["systemctl", "status", "nginx", "--json"]),
    ],
)  # fmt: skip
def test_options_before_the_commands_first_word_are_its_own(words, user, command):
    arguments = parser("ssh").parse_args(["ssh", *words])
    assert (arguments.guest, arguments.user, arguments.command_line) == ("web1", user, command)
    assert not arguments.json
