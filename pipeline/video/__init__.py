"""Video: probe, plan, read, encode, assemble."""

import os

os.environ.setdefault("SVT_LOG", "1")  # errors alone: SVT-AV1 prints paragraphs about itself wherever it is opened
