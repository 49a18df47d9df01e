# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release \
    && install -D -m 0755 target/release/ctct-proxy /out/ctct-proxy

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin ctct-proxy \
    && install -d -o ctct-proxy -g ctct-proxy -m 0700 /var/lib/ctct-proxy
COPY --from=build /out/ctct-proxy /usr/local/bin/ctct-proxy
USER 10001:10001
WORKDIR /var/lib/ctct-proxy
# The database and, unless one is given, its encryption key.
VOLUME /var/lib/ctct-proxy
# The admin listener stays on the container's loopback, where it needs no token; to reach it from outside,
# set CTCT_PROXY_ADMIN_LISTEN and CTCT_PROXY_ADMIN_TOKEN_FILE.
ENV CTCT_PROXY_LISTEN=0.0.0.0:8080 \
    CTCT_PROXY_STORE=sqlite:/var/lib/ctct-proxy/ctct-proxy.db \
    CTCT_PROXY_LOG_FORMAT=json
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["ctct-proxy", "status"]
# SIGTERM drains; give it longer than server.drain_timeout: docker stop --time 45
STOPSIGNAL SIGTERM
ENTRYPOINT ["ctct-proxy"]
CMD ["serve"]
