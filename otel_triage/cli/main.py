"""Entry point of `otel-triage`: argparse only, so that it runs with the base install."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of calls; give 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="otel-triage", description="Error triage for AI applications.")
    parser.add_argument("--version", action="version", version=f"otel-triage {version('otel-triage')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sidecar = commands.add_parser("sidecar", help="run the sidecar: receive, journal, triage, deliver")
    sidecar.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of settings; OTEL_TRIAGE_… wins"
    )
    sidecar.add_argument("--check", action="store_true", help="check the settings and stop")

    classify = commands.add_parser("classify", help="JSON lines of errors in, JSON lines of verdicts out")
    classify.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="JSON lines of error records; - is standard input",
    )
    classify.add_argument("--offline", action="store_true", help="ask no LLM")
    classify.add_argument("--explain", action="store_true", help="say which rule decided, and why")
    classify.add_argument("-o", "--output", metavar="OUT", help="write here instead of standard output")
    classify.add_argument(
        "--concurrency", type=_positive, default=5, metavar="N", help="LLM calls at a time at most (5)"
    )
    classify.add_argument("--resume", action="store_true", help="go on behind what OUT holds already")

    evaluate = commands.add_parser("eval", help="how right, how sure, how fast: verdicts against labels")
    evaluate.add_argument(
        "file",
        metavar="FILE",
        help="JSON lines of error records with the labels category, reason, retryable; - is standard input",
    )
    evaluate.add_argument("--offline", action="store_true", help="ask no LLM")
    evaluate.add_argument("--html", metavar="OUT", help="write a page with plots and the wrong verdicts here")

    letters = commands.add_parser("deadletter", help="what a backend refused for good: list, or send again")
    letters.add_argument("action", choices=("list", "resend"))
    letters.add_argument(
        "ids", nargs="*", type=int, metavar="ID", help="numbers of the list; without any, all"
    )
    letters.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="the sidecar's directory (OTEL_TRIAGE_DATA_DIR)"
    )
    letters.add_argument(
        "--admin", metavar="URL", help="a running sidecar's admin listener (OTEL_TRIAGE_ADMIN_LISTEN)"
    )

    demo = commands.add_parser("demo", help="failing LLM calls, triaged, on loopback: no key, no account")
    demo.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    demo.add_argument(
        "--app",
        type=Path,
        metavar="FOLDER",
        help="send traffic through the FastAPI application in this folder",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 0, or 2 where settings or the installation are wrong."""
    args = _parser().parse_args(argv)
    try:
        code = _COMMANDS[args.command](args)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "otel_triage":
            raise
        print(
            f"otel-triage {args.command}: {missing.name} is not installed; "
            f"pip install 'otel-triage[{_EXTRAS.get(args.command, args.command)}]'",
            file=sys.stderr,
        )
        code = 2
    raise SystemExit(code)


def _sidecar(args: argparse.Namespace) -> int:
    from otel_triage.sidecar.main import main as sidecar

    given = ["--config", str(args.config)] if args.config else []
    return sidecar([*given, "--check"] if args.check else given)


def _demo(args: argparse.Namespace) -> int:
    from otel_triage.demo.show import show

    return show(app=args.app, keep=args.keep)


def _classify(args: argparse.Namespace) -> int:
    from otel_triage.cli.classify import Options, run

    return run(
        Options(
            file=args.file,
            output=args.output,
            offline=args.offline,
            explain=args.explain,
            concurrency=args.concurrency,
            resume=args.resume,
        )
    )


def _eval(args: argparse.Namespace) -> int:
    from otel_triage.cli.eval_run import Options, run

    return run(Options(file=args.file, offline=args.offline, html=args.html))


def _deadletter(args: argparse.Namespace) -> int:
    from otel_triage.cli.deadletter import Options, run

    return run(Options(action=args.action, ids=tuple(args.ids), data_dir=args.data_dir, admin=args.admin))


_COMMANDS = {
    "classify": _classify,
    "deadletter": _deadletter,
    "demo": _demo,
    "eval": _eval,
    "sidecar": _sidecar,
}
_EXTRAS = {"deadletter": "sidecar", "eval": "cli"}  # where the extra is not called as the command


if __name__ == "__main__":
    main()
