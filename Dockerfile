# The image of pod-monitor.
#
#   docker build -t pod-monitor .        or: buildah bud -t pod-monitor .
#   cargo xtask image --load             the same file without registry or daemon, into the local stack
#
# The runtime image needs glibc (not older than the builder's) and, for TLS to Kafka, the usual root certificates.
# No shell, no package manager, no user database: everything else that the binary loads is copied beside it.
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS builder
# release, or a profile of Cargo.toml that builds faster.
ARG PROFILE=release
# librdkafka is compiled here and linked statically; OpenSSL and zlib are Debian's.
RUN { command -v make && pkg-config --exists libssl libcrypto zlib; } >/dev/null 2>&1 \
    || { apt-get update && apt-get install --yes --no-install-recommends make libssl-dev pkg-config zlib1g-dev; }
WORKDIR /src
COPY . .
# Outside of /src, so that a cache can be mounted there.
ENV CARGO_TARGET_DIR=/target
RUN cargo build --locked --package pod-monitor --bin pod-monitor --profile "$PROFILE"
# The binary, and those of its libraries that are not glibc's own: these must match the base's loader.
RUN set -eu; \
    case "$PROFILE" in dev) built=debug ;; *) built="$PROFILE" ;; esac; \
    mkdir -p /out/bin /out/lib; \
    cp "/target/$built/pod-monitor" /out/bin/; \
    ldd /out/bin/pod-monitor >/out/needed; \
    if grep "not found" /out/needed; then exit 1; fi; \
    sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' /out/needed \
        | grep -v -E '/(libc|libm|libdl|libpthread|librt|libresolv)\.so\.' \
        | while read -r library; do cp -L "$library" /out/lib/; done; \
    LD_LIBRARY_PATH=/out/lib /out/bin/pod-monitor --version

FROM ${RUNTIME}
LABEL org.opencontainers.image.title="pod-monitor" \
      org.opencontainers.image.description="Tells what happens to execution pods to Kafka, exactly once" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /out/lib/ /usr/local/lib/pod-monitor/
COPY --from=builder /out/bin/pod-monitor /usr/local/bin/pod-monitor
ENV LD_LIBRARY_PATH=/usr/local/lib/pod-monitor
# A number: the kubelet cannot verify runAsNonRoot by a name.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/pod-monitor"]
CMD ["run"]
