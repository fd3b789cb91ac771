"""The ``[model]`` tables, one module for each family of models; ``recipe.kinds`` registers them."""
