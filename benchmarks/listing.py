"""Memory and time to list and plan a run over very many names in an object store.

The store is a server on this machine that answers ListObjectsV2 with names that it invents, page by page: an S3 server
with a million objects would measure itself. Results of an earlier run can be invented as well.

    python benchmarks/listing.py 1000000
"""

import os
import resource
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
FOLDERS = {"in/": ".jpg", "out/masks/": ".png", "out/cams/": ".png", "out/overlays/": ".png"}
"""What is listed, with the suffix of its names."""


def name(folder: str, index: int) -> str:
    """Return the key of an object."""
    return f"{folder}slide-{index // 1000:06}/tile-{index % 1000:04}-of-1000-at-20x{FOLDERS[folder]}"


class Inventor(BaseHTTPRequestHandler):
    """Answers a listing with the names of `count` objects."""

    protocol_version = "HTTP/1.1"
    count = 0
    done = 0

    def do_GET(self) -> None:
        """Answer a listing."""
        query = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
        folder = query.get("prefix", "")
        total = 0 if folder not in FOLDERS else self.count if folder == "in/" else self.done
        start = int(query.get("continuation-token", "0"))
        end = min(start + PAGE, total)
        objects = "".join(
            f"<Contents><Key>{name(folder, index)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"{index:032x}"</ETag><Size>123456</Size><StorageClass>STANDARD</StorageClass></Contents>'
            for index in range(start, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < total else ""
        self.reply(
            200,
            f"<ListBucketResult><Name>bucket</Name><Prefix>{folder}</Prefix><KeyCount>{end - start}</KeyCount>"
            f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(end < total).lower()}</IsTruncated>{objects}{more}"
            "</ListBucketResult>",
        )

    def do_HEAD(self) -> None:
        """Answer that there is no such object."""
        self.reply(404, "")

    def reply(self, status: int, text: str) -> None:
        """Send an answer."""
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(count: int, done: int) -> str:
    """Start a server in a process of its own, so that its memory is not measured; return its address."""
    Inventor.count, Inventor.done = count, done
    server = ThreadingHTTPServer(("127.0.0.1", 0), Inventor)
    if os.fork() == 0:
        parent = os.getppid()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(0)
    server.socket.close()
    return f"http://127.0.0.1:{server.server_address[1]}"


def memory() -> float:
    """The most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count: int) -> None:
    """Measure and print."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": serve(count, count),
    }
    from alserve.folder.streamed import plan_streamed
    from alserve.places.store import Store

    before = memory()
    start = time.perf_counter()
    listed = sum(1 for _ in Store("s3://bucket", "in").list())
    after_listing = time.perf_counter()
    size_listing = memory()
    planned = plan_streamed(["s3://bucket/in"], "s3://bucket/out", save=("mask", "cam", "overlay"), overwrite=True)
    after_planning = time.perf_counter()
    size_planning = memory()
    there = sum(planned.there(target) is not None for image in planned.images for target in image.targets.values())
    end = time.perf_counter()
    if (listed, len(planned.images), there) != (count, count, 3 * count):
        sys.exit(f"listed {listed}, planned {len(planned.images)}, found {there} results")
    print(f"| step, {count:,} names | seconds | most memory so far, MB |\n|---|---|---|")
    print(f"| start | | {before:.0f} |")
    print(f"| list | {after_listing - start:.0f} | {size_listing:.0f} |")
    planning = f"list and plan, with a listing of {3 * count:,} results"
    print(f"| {planning} | {after_planning - after_listing:.0f} | {size_planning:.0f} |")
    print(f"| look up whether each image has its three results | {end - after_planning:.0f} | {memory():.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
