"""The root command: the table of commands, and the only place where errors become exit codes.

Exit codes (docs/interface.md#exit-codes): 0 success, 1 negative result or failure, 2 wrong usage, 130
interrupted. Errors are one line on standard error; tracebacks appear only for unexpected errors, and only
with ``BROKER_AUTH_DEBUG=1``.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, Final, NoReturn

import click

from broker_auth import __version__
from broker_auth.cli import output
from broker_auth.cli.lazy import Lazy, LazyGroup
from broker_auth.errors import BrokerAuthError, ConfigurationError

NO: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as in shells

COMMANDS: Final = {
    "init": Lazy("broker_auth.cli.init:init_command", "Write a deployment that is ready to start."),
    "serve": Lazy("broker_auth.cli.serve:serve_command", "Answer the brokers' authorization requests."),
    "reload": Lazy("broker_auth.cli.reload:reload_command", "Reload the configuration of the running service."),
    "revoke": Lazy("broker_auth.cli.revoke:revoke_command", "Deny what was granted, before it expires."),
    "restore": Lazy("broker_auth.cli.revoke:restore_command", "Take revocations back."),
    "revoked": Lazy("broker_auth.cli.revoke:revoked_command", "List what was revoked, by whom and why."),
    "sweep": Lazy("broker_auth.cli.sweep:sweep_command", "Show or end sessions that would not be admitted now."),
    "why": Lazy("broker_auth.cli.why:why_command", "Show why a connection was admitted or denied, and what to do."),
    "config": Lazy("broker_auth.cli.root:config_group", "Check configurations, render those of nats-servers."),
    "token": Lazy("broker_auth.cli.root:token_group", "Create, check and inspect Choria tokens."),
    "report": Lazy("broker_auth.cli.report:report_group", "List connections, waiting nodes, ending credentials."),
    "streams": Lazy("broker_auth.cli.streams:streams_group", "Create or change Choria's streams."),
    "demo": Lazy("broker_auth.cli.demo:demo_command", "Run the whole system on this machine."),
    "bench": Lazy("broker_auth.cli.bench:bench_command", "Measure decisions, a running service and connections."),
    "doctor": Lazy("broker_auth.cli.doctor:doctor_command", "Report problems of the live deployment."),
    "replay": Lazy("broker_auth.cli.replay:replay_command", "Decide stored requests again, and show who is affected."),
    "explain": Lazy("broker_auth.cli.explain:explain_command", "Decide a stored request again and show why."),
}
CONFIG_COMMANDS: Final = {
    "check": Lazy("broker_auth.cli.config:check_command", "List every problem of a configuration."),
    "render": Lazy("broker_auth.cli.config_render:render_command", "Render the configuration of a nats-server."),
    "zone": Lazy("broker_auth.cli.config_zone:zone_command", "Create the keys of a zone."),
}
TOKEN_COMMANDS: Final = {
    "provisioning": Lazy("broker_auth.cli.token_provisioning:provisioning_command", "Sign a provisioning token."),
    "server": Lazy("broker_auth.cli.token_server:server_command", "Sign a server token."),
    "client": Lazy("broker_auth.cli.token_client:client_command", "Sign a client token, or a chain issuer's."),
    "keys": Lazy("broker_auth.cli.token_keys:keys_command", "Create an Ed25519 seed and public key."),
    "check": Lazy("broker_auth.cli.token_check:check_command", "Verify a token; the exit code is the result."),
    "inspect": Lazy("broker_auth.cli.token_inspect:inspect_command", "Show a token without verifying it."),
}


class Root(LazyGroup):
    """The root command group; calling it runs the program and exits."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; with ``standalone_mode`` (the default), print each error as one line."""
        alone = kwargs.pop("standalone_mode", True)
        kwargs["standalone_mode"] = False
        if not alone:
            return super().main(*args, **kwargs)
        words = (args[0] if args else kwargs.get("args")) or sys.argv[1:]
        output.printed_document.set(False)
        try:
            code = super().main(*args, **kwargs)
        except Exception as problem:
            code, errors = _failure(problem)
            for line in errors:
                output.error(line)
            if errors and "--json" in words and not output.printed_document.get():
                output.document({"errors": [output.one_line(line) for line in errors]})
            sys.exit(code)
        # Commands exit with a code by `ctx.exit`; other return values are not exit codes.
        sys.exit(code if isinstance(code, int) else 0)


def _failure(problem: Exception) -> tuple[int, list[str]]:
    """Return the exit code of an error, and its lines."""
    match problem:
        case click.Abort():
            return INTERRUPTED, []
        case click.ClickException():
            return USAGE if isinstance(problem, click.UsageError) else NO, [problem.format_message()]
        case ConfigurationError():
            return NO, [str(line) for line in problem.problems]
        case BrokerAuthError():
            return NO, [str(problem)]
        case OSError(errno=errno.EPIPE):
            return NO, []  # the reader of standard output has gone
        case OSError():
            where = f"{problem.filename}: " if problem.filename else ""
            return NO, [f"{where}{problem.strerror or type(problem).__name__}"]
        case _:
            return NO, [_unexpected(problem)]


def _unexpected(problem: Exception) -> str:
    """Return an unexpected error without its text, which may quote a secret."""
    if os.environ.get("BROKER_AUTH_DEBUG") == "1":
        import traceback

        traceback.print_exception(problem)
    return (
        f"internal error: {_origin(problem)} ({type(problem).__name__}); "
        "run with BROKER_AUTH_DEBUG=1 for the traceback, and report it"
    )


def _origin(problem: Exception) -> str:
    """Return the module and line that raised the exception."""
    frame = problem.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return "unknown place"
    return f"{frame.tb_frame.f_globals.get('__name__', '?')}:{frame.tb_lineno}"


_EPILOG: Final = """\b
Shell completion:
  bash:  eval "$(_BROKER_AUTH_COMPLETE=bash_source broker-auth)"   in ~/.bashrc
  zsh:   eval "$(_BROKER_AUTH_COMPLETE=zsh_source broker-auth)"    in ~/.zshrc
  fish:  _BROKER_AUTH_COMPLETE=fish_source broker-auth | source    in ~/.config/fish/config.fish

\b
Exit codes: 0 success, 1 negative result or failure, 2 wrong usage. The help of a command lists others.
Errors are single lines on standard error. With --json, standard output is one JSON document.
"""

main = Root(
    name="broker-auth",
    table=COMMANDS,
    help="The Choria Broker's auth layer as an auth-callout service for stock nats-server.",
    epilog=_EPILOG,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda ctx, _, value: _show_version(ctx) if value else None,
            help="Show the version and exit.",
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
config_group = LazyGroup(
    name="config",
    table=CONFIG_COMMANDS,
    help="Check a configuration, and render nats-server configurations from it.",
    epilog="\b\nExample:\n  broker-auth config check /etc/broker-auth/broker.conf",
)
token_group = LazyGroup(
    name="token",
    table=TOKEN_COMMANDS,
    help="""Create, check and inspect Choria tokens.

    Claims and options are those of Choria's own `choria jwt`. Keys are files; HashiCorp Vault is not
    supported.""",
    epilog="""\b
Example:
  broker-auth token keys issuer.seed issuer.public
  broker-auth token provisioning provisioning.jwt issuer.seed --token file:token.txt \\
      --urls nats://provision.example.net:4222
  broker-auth token check provisioning.jwt --issuer choria=$(cat issuer.public)""",
)


def _show_version(ctx: click.Context) -> NoReturn:
    click.echo(f"broker-auth {__version__}")
    ctx.exit()
