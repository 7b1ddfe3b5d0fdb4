"""An echo server with one thread: poll, or edge-triggered epoll with and without draining.

A solution of chapter 7. It ignores that send() may be partial, as a first version may.
"""

import argparse
import select
import socket


def echo(connection, size):
    """Echoes one read; false if there was nothing to read or the client has gone."""
    try:
        data = connection.recv(size)
    except BlockingIOError:
        return True, False
    connection.sendall(data)
    return bool(data), bool(data)


def serve(edge, drain):
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    connections = {}
    if edge:
        waiter, read_flags, size = select.epoll(), select.EPOLLIN | select.EPOLLET, 4
        waiter.register(listener, select.EPOLLIN)
    else:
        waiter, read_flags, size = select.poll(), select.POLLIN, 4096
        waiter.register(listener, select.POLLIN)
    while True:
        for descriptor, _ in waiter.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                connections[connection.fileno()] = connection
                waiter.register(connection, read_flags)
                continue
            connection = connections[descriptor]
            alive, more = echo(connection, size)
            while alive and more and drain:
                alive, more = echo(connection, size)
            if not alive:
                waiter.unregister(connection)
                del connections[descriptor]
                connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--edge", action="store_true", help="edge-triggered epoll, 4 bytes a read")
    parser.add_argument("--drain", action="store_true", help="read until EAGAIN")
    arguments = parser.parse_args()
    serve(arguments.edge, arguments.drain)
