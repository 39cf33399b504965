"""Training SwinIR: pictures made worse, patches of them, and the loop that goes on where it stopped."""
