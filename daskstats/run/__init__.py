"""How results come out: streams of images, and a runner for each kind of scheduler."""
