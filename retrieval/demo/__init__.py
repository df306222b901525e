"""The search page, served on this machine.

server     `python -m retrieval demo`: the command and the routes
guard      checks before a route: who sends a request, how long it is; headers of responses
questions  checks of the values in a request
uploads    decode uploaded pictures safely, and keep the last few
answers    neighbours as JSON, encoded pictures
fills      fills of a hole by every available method
page       HTML, CSS and JavaScript
"""
