"""What the heavy packages must know before they are imported."""

import os

# LiteLLM would fetch a list of prices from the network, and wait for it.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
