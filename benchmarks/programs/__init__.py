"""One program for hesscli and one for each peer, each run in an environment of its own."""
