"""How a question reaches a model: in this process, or over HTTP; one file a transport."""
