"""The web page on which people label: server, page and what is kept of their work."""
