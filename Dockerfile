# The image of worker and enqueue. Without a container engine use scripts/image.
#
#   docker build --build-arg COMMIT="$(git rev-parse --short HEAD)" -t terbayar:0.1.0 .
#
# The target gatewaysim is an image of the simulated gateways, for compose.yaml only. The flags of
# go build are those of .ko.yaml, so that both ways build the same programs.
ARG BUILDER=docker.io/library/golang:1.26-bookworm

FROM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG COMMIT=unknown
ARG TARGETOS=linux
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -tags=timetzdata \
      -ldflags="-s -w -X terbayar/internal/version.commit=$COMMIT" -o /out/ ./cmd/worker ./cmd/enqueue ./cmd/gatewaysim

FROM scratch AS gatewaysim
COPY deploy/image/etc/ /etc/
COPY --from=build /out/gatewaysim /usr/local/bin/
USER 65532:65532
EXPOSE 8090
ENTRYPOINT ["/usr/local/bin/gatewaysim"]

FROM scratch
COPY deploy/image/etc/ /etc/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/worker /out/enqueue /usr/local/bin/
ENV PATH=/usr/local/bin
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/worker"]
ARG COMMIT=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="terbayar" \
      org.opencontainers.image.description="Workers that submit payments to AM Digital Payment and Paydia SNAP" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
