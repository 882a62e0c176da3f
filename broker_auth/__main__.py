"""``python -m broker_auth`` is the ``broker-auth`` command."""

from broker_auth.cli import main

if __name__ == "__main__":
    main()
