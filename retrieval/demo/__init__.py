"""The search page, served on this machine.

server  `python -m retrieval demo`: routes, uploads, checks of a request
fills   fills of a hole by every available method
page    HTML, CSS and JavaScript
"""
