//! How results are shown: masks on rows and COPY data of every wire format.
