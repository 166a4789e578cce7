# qshimd in a container, on Debian 12 (QEMU 7.2). Build it from the project's root:
#   docker build -t qshim .
# Run it with the host's KVM if there is one, and with an init that reaps what QEMU leaves behind:
#   docker run --init --device /dev/kvm -v /run/qshim:/run/qshim -v /var/lib/qshim/volumes:/var/lib/qshim/volumes qshim
# Sandboxes live in the container: stopping it stops them.

FROM debian:12-slim AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates cpio gcc linux-libc-dev nodejs npm
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# Debian's Node.js is too old to run qshim; the npm package `node` of the lock file brings the right one.
RUN npm ci && install -m 755 node_modules/node/bin/node /usr/local/bin/node24
COPY . .
RUN node24 scripts/guest.ts && rm -rf build/guest-debs
RUN npm ci --omit=dev

FROM debian:12-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-x86 qemu-utils libtcmalloc-minimal4 \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /run/qshim /var/lib/qshim/volumes
COPY --from=build /usr/local/bin/node24 /usr/local/bin/node
COPY --from=build /app/package.json /app/
COPY --from=build /app/node_modules /app/node_modules
COPY --from=build /app/bin /app/bin
COPY --from=build /app/src /app/src
COPY --from=build /app/proto /app/proto
COPY --from=build /app/build /app/build
ENV PATH=/app/bin:$PATH
VOLUME ["/run/qshim", "/var/lib/qshim/volumes"]
ENTRYPOINT ["/app/bin/qshimd"]
