"""A policy behind a websocket, by openpi's protocol: a robot that asks openpi's server can ask this one.

``wire`` is the form of messages, ``app`` the server of anything that is :class:`~robolift.policy.server.app.Served`,
``served`` a policy as such a thing, ``prompt_rule`` which prompt it acts under, ``cli`` the command.
"""
