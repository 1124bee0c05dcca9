# The image from this source: docker build -t call-me .
# (release.Dockerfile makes the released ones, from binaries that are there.)
FROM --platform=$BUILDPLATFORM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags="-s -w -X main.release=$VERSION" -o /out/call-me . && mkdir /out/data

# Nothing but the binary, a folder for the database, and one for backups of two servers: no shell, no root.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/call-me /call-me
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/data /tmp
USER 65532:65532
ENV CALL_ME_DB=/data/call-me.db
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["/call-me", "health"]
ENTRYPOINT ["/call-me"]
CMD ["serve"]
