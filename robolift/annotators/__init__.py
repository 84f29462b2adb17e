"""Who says how well it went: vision-language models, asked by protocol over a transport, and people, on a web page."""
