# docker build --target cpu -t lorikeet:cpu .
# docker run --rm -p 8001:8001 lorikeet:cpu            serves the demo model
# docker run --rm -p 8001:8001 -v /my/model:/model:ro lorikeet:cpu serve \
#   --model /model --host 0.0.0.0 --insecure --state-dir /var/lib/lorikeet
#
# scripts/replay_dockerfile.sh replays these steps where there is no Docker; it
# knows FROM, ARG, ENV, WORKDIR, COPY, RUN, USER, EXPOSE, VOLUME, HEALTHCHECK,
# ENTRYPOINT and CMD, the last four only in their JSON form.

FROM debian:bookworm AS build
WORKDIR /src
COPY scripts/packages.sh scripts/packages.sh
RUN scripts/packages.sh
COPY . .
RUN cmake --preset release \
      -DLORIKEET_BUILD_TESTS=OFF -DLORIKEET_BUILD_BENCH=OFF \
 && cmake --build build/release --target lorikeet \
 && strip build/release/lorikeet

FROM debian:bookworm-slim AS cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libabsl20220623 libfmt9 libgrpc++1.51 libgrpc29 libhwy1 libpcre2-8-0 \
      libprotobuf32 libspdlog1.10 libsqlite3-0 libssl3 libutf8proc2 \
      libyaml-cpp0.7 \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --no-create-home \
      --home-dir /var/lib/lorikeet --shell /usr/sbin/nologin lorikeet \
 && install -d -o lorikeet -g lorikeet -m 0750 /var/lib/lorikeet
COPY --from=build /src/build/release/lorikeet /usr/bin/lorikeet
COPY demo/base /usr/share/lorikeet/demo/base
COPY demo/adapters /usr/share/lorikeet/demo/adapters
COPY LICENSE /usr/share/doc/lorikeet/LICENSE
ENV LORIKEET_SERVER=127.0.0.1:8001
WORKDIR /var/lib/lorikeet
VOLUME ["/var/lib/lorikeet"]
EXPOSE 8001
USER lorikeet
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["lorikeet", "models"]
ENTRYPOINT ["lorikeet"]
# A container has its own network, so the port is published on purpose; put
# authentication in front of it before others can reach it.
CMD ["serve", "--model", "/usr/share/lorikeet/demo/base", \
     "--adapter-root", "/usr/share/lorikeet/demo/adapters", \
     "--host", "0.0.0.0", "--insecure", "--state-dir", "/var/lib/lorikeet"]
