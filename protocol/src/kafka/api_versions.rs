//! What this broker serves: the first that a client asks.

use super::{ApiKey, DecodeError, Fields, Message, SERVED};

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ApiVersionsRequest {
    /// What the client's software calls itself (KIP-511).
    pub client_software_name: String,
    /// Its version.
    pub client_software_version: String,
}

/// What is served.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ApiVersionsResponse {
    /// 0, or that the request's own version is not served.
    pub error: i16,
    /// By kind of request.
    pub apis: Vec<ApiVersions>,
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
}

/// The versions of one kind of request.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ApiVersions {
    /// Its number.
    pub api: i16,
    /// The oldest version.
    pub oldest: i16,
    /// The newest version.
    pub newest: i16,
}

impl ApiVersionsResponse {
    /// Everything that is served.
    pub fn of_this_broker(error: i16) -> ApiVersionsResponse {
        let apis = SERVED.iter().map(|served| ApiVersions {
            api: served.api.code(),
            oldest: served.oldest_told(),
            newest: served.newest,
        });
        ApiVersionsResponse { error, apis: apis.collect(), throttle_ms: 0 }
    }
}

impl Message for ApiVersionsRequest {
    const API: ApiKey = ApiKey::ApiVersions;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        if version >= 3 {
            fields.string(&mut self.client_software_name)?;
            fields.string(&mut self.client_software_version)?;
        }
        fields.tags()
    }
}

impl Message for ApiVersionsResponse {
    const API: ApiKey = ApiKey::ApiVersions;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i16(&mut self.error)?;
        fields.list(&mut self.apis, |api, fields| {
            fields.i16(&mut api.api)?;
            fields.i16(&mut api.oldest)?;
            fields.i16(&mut api.newest)?;
            fields.tags()
        })?;
        if version >= 1 {
            fields.i32(&mut self.throttle_ms)?;
        }
        fields.tags()
    }
}
