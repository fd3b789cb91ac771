"""The ``[cluster]`` tables, one module for each method; ``recipe.methods`` registers them."""
