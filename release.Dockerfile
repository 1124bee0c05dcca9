# The released image: a binary that is there already, the certificates of
# public authorities for a client in it, a folder for the database, and one for
# backups of two servers. No shell, no root. .image is made by goreleaser's hooks, or by .ci/image.
FROM scratch
COPY .image/ca-certificates.crt /etc/ssl/certs/
COPY --chown=65532:65532 .image/data /data
COPY --chown=65532:65532 .image/data /tmp
COPY call-me /call-me
USER 65532:65532
ENV CALL_ME_DB=/data/call-me.db
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["/call-me", "health"]
ENTRYPOINT ["/call-me"]
CMD ["serve"]
