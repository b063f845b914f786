# The image for those who have Docker; the local cluster of hack/cluster makes
# an equal one without it. `make verify` builds the programs from what the first
# stage is given, and nothing builds the image.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY controllers controllers
COPY services services
COPY main.go ./
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN go build -trimpath -buildvcs=false -ldflags '-s -w' -o /out/marketplane ./services \
 && go build -trimpath -buildvcs=false -ldflags '-s -w' -o /out/marketplane-operator . \
 && mkdir -p /out/tmp && chmod 1777 /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/ /
USER 65532:65532
ENTRYPOINT ["/marketplane"]
