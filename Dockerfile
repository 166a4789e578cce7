# qshimd in a container, on Debian 12 (QEMU 7.2). Build it from the project's root:
#   docker build -t qshim .
# Run it with the host's KVM if there is one, and with an init that reaps what QEMU leaves behind:
#   docker run --init --device /dev/kvm --group-add "$(stat -c %g /dev/kvm)" \
#     -v qshim-run:/run/qshim -v qshim-volumes:/var/lib/qshim/volumes qshim
# Sandboxes live in the container: stopping it stops them. docs/operations.md, "A container", says what root adds.
#
# The base is pinned by digest: debian:bookworm-20260918-slim, as the Docker library's own record (docker-library/
# repo-info) has it. Packages come from Debian's mirror as they are on the day of the build; apt checks who signed them.

FROM debian:12-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251 AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates cpio gcc linux-libc-dev nodejs npm
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Debian's Node.js is too old to run qshim; the npm package `node` of the lock file brings the right one.
RUN npm ci && install -m 755 node_modules/node/bin/node /usr/local/bin/node24
COPY . .
RUN node24 scripts/guest.ts && rm -rf build/guest-debs
RUN npm ci --omit=dev

FROM debian:12-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251
# A user that owns its directories and nothing else: neither the daemon nor QEMU needs to be root. Its number is fixed,
# so that directories of the host can be given to it.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-x86 qemu-utils bubblewrap libtcmalloc-minimal4 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 64420 qshim \
 && useradd --uid 64420 --gid 64420 --no-create-home --home-dir /var/lib/qshim --shell /usr/sbin/nologin qshim \
 && install -d -m 700 -o qshim -g qshim /run/qshim /var/cache/qshim /var/lib/qshim /var/lib/qshim/volumes
# All of it belongs to root: the daemon can read it, and not change it.
COPY --from=build /usr/local/bin/node24 /usr/local/bin/node
COPY --from=build /app/package.json /app/
COPY --from=build /app/node_modules /app/node_modules
COPY --from=build /app/bin /app/bin
COPY --from=build /app/src /app/src
COPY --from=build /app/proto /app/proto
COPY --from=build /app/build /app/build
ENV PATH=/app/bin:$PATH NODE_COMPILE_CACHE=/var/cache/qshim/node
VOLUME ["/run/qshim", "/var/lib/qshim/volumes"]
USER 64420:64420
# Asks grpc.health.v1. The first start probes QEMU, which takes a while under emulation.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["/app/bin/qshim", "health"]
ENTRYPOINT ["/app/bin/qshimd"]
