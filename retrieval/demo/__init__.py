"""The search page, served on this machine.

server     `python -m retrieval demo`: the command and the routes
guard      checks before a route: who sends a request, how long it is; headers of responses
questions  checks of the values in a request
uploads    decode uploaded pictures safely, and keep the last few
examples   the question that the page opens with
answers    neighbours as JSON, encoded pictures
closeness  how close a neighbour is, as a word
fills      fills of a hole by every available method
page       HTML, CSS and JavaScript
"""
