"""`python -m verification.chaos.s3_server`: the S3 test server in a process of its own, until standard input closes."""

import sys


def main() -> None:
    """Print the port, serve, end with standard input."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
