# Rotacast's images:
#
#   docker build --target broadcaster .   the broadcaster and its command line, nothing else: no shell, no package manager
#   docker build --target setup .         makes keys, certificates and the configuration of docker-compose.yml
#   docker build --target sample .        a sample service that queries PostgreSQL all the time
#
# Nothing in them runs as root. Needs BuildKit (the default since Docker 23). docs/operate/compose.md says what was tried.

# ---- What compiles ---------------------------------------------------------------------------------------------------
FROM rust:1.95.0-slim-trixie AS toolchain
# librdkafka is C and C++ and built with make; perl configures the OpenSSL that it is linked with.
# Versions are those of the base image's Debian release: an older one is gone from the archive when a fix comes out.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
# Names of functions stay, for the backtrace of a panic; the rest of the debug information is most of a binary.
ENV CARGO_PROFILE_RELEASE_DEBUG=0 \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    CARGO_TERM_COLOR=never
WORKDIR /src

# The manifests, and an empty source for every target they name. Only this goes into the next stage, so that what the
# dependencies are built into stays cached until a Cargo.toml or Cargo.lock changes.
FROM toolchain AS manifests
COPY Cargo.toml Cargo.lock ./
COPY tools/proto-codegen tools/proto-codegen
COPY proto proto
COPY core core
COPY broadcaster broadcaster
COPY cli cli
COPY subscriber-sdk subscriber-sdk
COPY tests tests
RUN find . -name '*.rs' ! -name lib.rs ! -name main.rs ! -name build.rs \
        ! -path '*/bin/*' ! -path '*/benches/*' ! -path '*/examples/*' ! -path '*/tests/*' -delete \
    && echo 'fn main() {}' >/tmp/empty.rs \
    && find . -name '*.rs' -exec cp /tmp/empty.rs '{}' ';' \
    && find . -type f ! -name '*.rs' ! -name Cargo.toml ! -name Cargo.lock -delete \
    && find . -depth -mindepth 1 -type d -empty -delete

FROM toolchain AS dependencies
COPY --from=manifests /src .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --release --locked -p rotacast --no-default-features --features kafka-tls

# ---- The broadcaster -------------------------------------------------------------------------------------------------
FROM dependencies AS build
COPY proto proto
COPY core core
COPY broadcaster broadcaster
COPY cli cli
COPY subscriber-sdk subscriber-sdk
# Sources may be older than the empty ones that were just built, and Cargo goes by time.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    find . -name '*.rs' -exec touch '{}' + \
    && cargo build --release --locked -p rotacast --no-default-features --features kafka-tls
# A root file system with the program, the libraries it is linked with, and what resolves names.
RUN mkdir -p /image/root/etc/ssl/certs /image/root/usr/local/bin /image/data /image/rotacast \
    && cp target/release/rotacast /image/root/usr/local/bin/ \
    && ldd target/release/rotacast >/tmp/linked \
    && grep -o '/[^ ]*' /tmp/linked >/tmp/libraries \
    && xargs -a /tmp/libraries cp --parents --dereference --target-directory=/image/root \
    && cp /etc/ssl/certs/ca-certificates.crt /image/root/etc/ssl/certs/ \
    && echo 'hosts: files dns' >/image/root/etc/nsswitch.conf \
    && echo 'rotacast:x:10001:10001::/var/lib/rotacast:/sbin/nologin' >/image/root/etc/passwd \
    && echo 'rotacast:x:10001:' >/image/root/etc/group \
    && mkdir /image/rotacast/public /image/rotacast/broadcaster /image/rotacast/operator

FROM scratch AS broadcaster
COPY --from=build /image/root /
# A new volume takes its owner from the folder that it is mounted over.
COPY --from=build --chown=10001:10001 /image/data /var/lib/rotacast
COPY --from=build --chown=10001:10001 /image/rotacast /rotacast
ENV PATH=/usr/local/bin
USER 10001:10001
WORKDIR /var/lib/rotacast
EXPOSE 7400
ENTRYPOINT ["rotacast"]
CMD ["serve"]

# ---- What docker-compose.yml needs besides ---------------------------------------------------------------------------
FROM debian:13.8-slim AS base
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rotacast \
    && install --directory --owner=10001 --group=10001 /rotacast \
        /rotacast/public /rotacast/broadcaster /rotacast/operator /rotacast/service \
        /rotacast/payments-api /rotacast/ledger /rotacast/mailer

FROM base AS setup
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssl \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/rotacast /usr/local/bin/
COPY deploy/compose /usr/local/share/rotacast/compose
USER 10001:10001
ENTRYPOINT ["sh", "/usr/local/share/rotacast/compose/setup"]

FROM build AS build-sample
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    find tests -name '*.rs' -exec touch '{}' + \
    && cargo build --release --locked -p rotacast-tests --bin pool-service

FROM base AS sample
COPY --from=build-sample /src/target/release/pool-service /usr/local/bin/
COPY deploy/compose/sample /usr/local/share/rotacast/compose/
USER 10001:10001
ENTRYPOINT ["sh", "/usr/local/share/rotacast/compose/sample"]
