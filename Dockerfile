# One image for the SBS, the agent and, for trying things out, a software TPM.
FROM debian:12.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        gcc make libc6-dev libtss2-dev pkg-config python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/cafe && /opt/cafe/bin/pip install --no-cache-dir -c constraints.txt .

FROM debian:12.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates python3 swtpm \
        libtss2-esys-3.0.2-0 libtss2-fapi1 libtss2-rc0 libtss2-tctildr0 \
        libtss2-tcti-device0 libtss2-tcti-swtpm0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /var/lib/cafe --shell /usr/sbin/nologin cafe
COPY --from=build /opt/cafe /opt/cafe
ENV PATH=/opt/cafe/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1
WORKDIR /var/lib/cafe
USER cafe
CMD ["cafe-sbs", "--help"]
