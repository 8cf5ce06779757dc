"""What a proxy that lets no WebSocket through has to be told; both ends of a link say it."""

PASS_UPGRADE_ON = (
    "if a proxy stands in front, let it pass WebSockets on; nginx needs: proxy_http_version 1.1; "
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
)
