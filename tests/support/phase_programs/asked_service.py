"""A service on 127.0.0.1 for the rows about connections. Usage: asked_service.py PORT

Of each connection the first line says what to do with the rest:
"echo" answers each piece with the same bytes until the client ends its side, and "end" then;
"last" ends its own side at once, and keeps what the client sends until that ends its side too;
"kept" answers with what the connections of "last" have sent.
"""

import asyncio
import sys

kept = bytearray()


async def serve(reader, writer):
    try:
        asked = (await reader.readline()).strip()
        if asked == b"echo":
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            writer.write(b"end")
        elif asked == b"last":
            writer.write_eof()
            kept.extend(await reader.read())
        elif asked == b"kept":
            writer.write(kept)
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    async with server:
        await server.serve_forever()


asyncio.run(main())
