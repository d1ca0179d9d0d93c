"""
Run the server that breaks on command.

While it runs, it is told what to do over HTTP:

    curl localhost:8080/-/break -d '{"fault": "cut", "value": 20, "times": 3}'
    curl localhost:8080/-/refuse -d '{"text": "DROP TABLE", "status": 403}'
    curl localhost:8080/-/be -d '{"mood": "firewall"}'
    curl localhost:8080/-/do -d '{"do": "die", "seconds": 2}'
    curl localhost:8080/-/traits -d '{"permits": 64}'
    curl localhost:8080/-/mend -d ''
    curl localhost:8080/-/seen
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import attrs

from bench.breakable.control import DEEDS
from bench.breakable.faults import FAULTS, Fault
from bench.breakable.moods import MOODS
from bench.breakable.server import Breakable
from bench.breakable.traits import Traits

FAULT_HELP = (
    "let the first requests meet a fault, as NAME, NAME=VALUE or NAME=VALUExTIMES; "
    f"may be repeated: {', '.join(FAULTS)}"
)


def read_fault(text: str) -> Fault:
    """Read a fault as it is written on the command line."""
    name, _, rest = text.partition("=")
    value, _, times = rest.partition("x")
    return Fault(fault=name, value=int(value or 0), times=int(times or 1))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; each trait is an option of its own."""
    about = f"{__doc__}\nWhat can be done to it: {', '.join(DEEDS)}."
    parser = argparse.ArgumentParser(
        prog="python -m bench.breakable",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ip", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on")
    parser.add_argument(
        "--break", type=read_fault, action="append", default=[], help=FAULT_HELP
    )
    parser.add_argument(
        "--mood",
        choices=MOODS,
        action="append",
        default=[],
        help="be as some servers, gateways and firewalls are; may be repeated",
    )
    for trait in attrs.fields(Traits):
        option = "--" + trait.name.replace("_", "-")
        about, default = trait.metadata["about"], trait.default
        if default is False:
            parser.add_argument(option, action="store_true", help=about)
        else:
            about += f" [default: {default}]" if default != "" else ""
            kind = type(default)
            parser.add_argument(option, type=kind, default=default, help=about)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Serve until interrupted."""
    from twisted.internet import reactor as installed  # noqa: PLC0415  not to import

    reactor: Any = installed
    options = vars(parse(arguments))
    names = [trait.name for trait in attrs.fields(Traits)]
    traits = Traits(**{name: options[name] for name in names})
    server = Breakable(
        reactor=reactor, traits=traits, ip=options["ip"], port=options["port"]
    )
    for fault in options["break"]:
        server.faults.add(fault)
    for mood in options["mood"]:
        server.be(mood)
    server.start()
    sys.stdout.write(f"breakable on {server.url}\n")
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
