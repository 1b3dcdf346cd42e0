# docker build --target cpu -t lorikeet:cpu .          or cuda, on x86-64
# docker run --rm -p 8001:8001 lorikeet:cpu            serves the demo model
# docker run --rm --gpus all -p 8001:8001 lorikeet:cuda
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

# The CUDA toolkit's compiler and cuBLAS, from NVIDIA's Python wheels. The
# plug-in was not yet run on a GPU.
FROM build AS build-cuda
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-pip \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m pip install --no-cache-dir --no-deps --target /opt/cuda \
      'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' \
      'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*' \
      'nvidia-cuda-runtime==13.0.*' 'nvidia-cublas==13.0.*' \
 && ln -s /opt/cuda/nvidia/cu13 /usr/local/cuda \
 && ln -s lib /usr/local/cuda/lib64 \
 && ln -s libcublasLt.so.13 /usr/local/cuda/lib/libcublasLt.so
RUN cmake --preset release \
 && cmake --build build/release --target lorikeet_cuda \
 && strip --strip-unneeded build/release/liblorikeet_cuda.so

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

# The same and the plug-in for a GPU beside it; without a GPU the CPU serves.
FROM cpu AS cuda
USER root
COPY --from=build-cuda /opt/cuda/nvidia/cu13/lib/libcublasLt.so.13 \
     /usr/lib/x86_64-linux-gnu/libcublasLt.so.13
COPY --from=build-cuda /src/build/release/liblorikeet_cuda.so \
     /usr/bin/liblorikeet_cuda.so
# What NVIDIA's container runtime brings in.
ENV NVIDIA_VISIBLE_DEVICES=all
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER lorikeet
