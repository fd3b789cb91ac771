"""vemseg: self-supervised segmentation of organelles in volume electron microscopy.

The rooms import downwards only (``tests/test_rooms.py`` holds the table of floors):

    roof     cli         commands: parse, call one function of the pipeline, print
    floor 6  pipeline    one page per verb: open, compute, write
    floor 5  dense       encoder x placement x volume -> vectors -> labels, block by block
             training    objective + sampler + schedule -> checkpoints
             distillation  a dense encoder taught by another one, and how well both agree
             report      labels and their image -> a page to look at, name and merge classes
             gallery     what is shown of a volume and labels: pictures, surfaces, views elsewhere
             datasets    published volumes with reference labels, and the phantom's files
    floor 4  models      encoders and objectives, by name
             labelling   vectors -> class scores
             sampling    where training looks: volumes, made-up tissue -> batches
             features    vectors on a lattice, on disk
             objects     labels of classes -> objects, measured; labels merged and cleaned
             surfaces    labels -> meshes, their files, pictures in space
             comparison  volumes of one subject, brought to the same voxels and counted
    floor 3  volume      voxels on disk: TIFF, OME-Zarr; voxel size, intensities
             run         outputs that appear whole, runs that explain themselves, fingerprints
             blocks      work that any process can do block by block, and one that does it
             catalog     what can be fetched or ships with the package
             batch       what training sees in one step
             ranks       processes that train one model together
             points      voxels that somebody clicked, with their classes
    floor 2  recipe      frozen settings of one method; the registries of methods
             context     where to compute, how much to use, whom to tell and ask
             budget      the blocks that fit into a budget of memory
             tiling      placements: index arithmetic
             metrics     contingency tables -> Dice, matching, merging
             drawing     arrays -> figures
             graphs      regions as graphs: affinities, spectra, the network of SCCS
             superpixels images divided into regions of even grey
             phantom     a procedural cell with exact labels; random tissue
    floor 1  geometry    Box, axis order, nanometres
             files       files that appear whole or not at all
             foreign     what others wrote, read without trust
             modules     network modules that keep some tensors exact, or on the CPU
             names       what a file's name says of a volume
             resources   the memory and cores this process may use
             cache       arrays that were used last, up to some bytes of them
    floor 0  errors      what can go wrong, and its exit code

Axes are z, y, x everywhere; sizes are voxels unless a name says ``nm``.
"""

__version__ = "0.1.0"
