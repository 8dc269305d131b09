"""The pages people use: server-rendered, no CDN."""
